"""Simulators of deformable bodies: a ground truth on MuJoCo flex and learned ones, behind one contract."""
