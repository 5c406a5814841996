"""The lab's devices under test: what they say over SSDP, MDX and DIAL, and the process that is all of them."""
