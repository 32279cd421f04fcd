"""The paper's evaluation (section 4.2 and 4.3) as one resumable benchmark."""
