"""What is: caches of watched objects, and the facts kept of them."""
