"""The rules of the policy, one module each."""
