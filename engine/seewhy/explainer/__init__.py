"""The Explainer, and the Explanation that it returns."""
