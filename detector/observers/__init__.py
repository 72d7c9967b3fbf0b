"""Ways of seeing.  An observer turns batches into evidence; it never judges."""
