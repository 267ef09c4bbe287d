"""Raw images: reading files of all kinds, checking what is declared about them, developing them to linear RGB."""
