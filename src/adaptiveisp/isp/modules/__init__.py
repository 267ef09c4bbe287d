"""The ISP modules, one file each."""
