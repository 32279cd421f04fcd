"""Jobs in processes and on Ray, one thread each."""
