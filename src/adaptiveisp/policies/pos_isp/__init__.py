"""Policies that the authors of POS-ISP published: parameters from the image, one order of modules for all images."""
