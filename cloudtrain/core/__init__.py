"""The values that flow between the rooms, and the ground they stand on; imports nothing else of cloudtrain."""
