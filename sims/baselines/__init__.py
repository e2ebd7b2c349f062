"""What the model is compared with: graph networks on particles, rigid motion, and itself less a part."""
