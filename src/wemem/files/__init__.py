"""Files: reading them within limits, writing them whole, hashing and downloading."""
