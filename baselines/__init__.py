"""The methods that DPO is compared with. Imports `suite` only; reached by `suite` through entry points."""
