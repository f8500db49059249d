"""Networks, one folder a framework and one file a network: class Options, class Backend."""
