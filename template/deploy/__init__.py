"""How the service gets into a cluster: its image, its manifests, and the commands that deploy them."""
