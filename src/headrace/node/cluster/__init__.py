"""Several processes that serve as one node: a lead, which fetches, and servers, which pass on to it what is not here."""
