"""Every variant started for real: real weights, real servers, the shipped Serve config, the shipped contract suite."""
