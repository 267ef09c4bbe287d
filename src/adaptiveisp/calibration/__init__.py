"""Measurement of a camera's levels, gain and noise from dark and flat frames."""
