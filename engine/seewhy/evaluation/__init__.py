"""Evaluation: resumable jobs that measure explanations, their statistics, and recommendations in words."""
