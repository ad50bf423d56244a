"""The public heart: an Explainer, and the Explanation that it returns."""
