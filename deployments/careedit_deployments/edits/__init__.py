"""One edit on the server: its arm, seed, routing and cost; its session; what is stored of it."""
