"""One page of HTML with all that is known of a compiled model; its sources are in `page/`."""
