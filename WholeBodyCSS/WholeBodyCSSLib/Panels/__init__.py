"""The Qt side of each page, thin: a slot reads what the user chose, calls the logic and shows what came."""
