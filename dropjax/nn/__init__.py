"""What frameworks lack: recurrent cells as pure steps, and convolutions that are fast in a loop."""
