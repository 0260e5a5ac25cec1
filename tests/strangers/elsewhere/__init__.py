"""Somebody's own parts for branchynet, one of each kind; they know it by its documentation alone."""
