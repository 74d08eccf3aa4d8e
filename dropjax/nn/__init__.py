"""What frameworks lack: recurrent cells as pure steps, and a dense layer that declares its site."""
