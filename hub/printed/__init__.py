"""What `hub print` prints: files for the programs around the hub, as they stand here, with the values filled in."""
