"""The methods that learn a policy, one folder or file each."""
