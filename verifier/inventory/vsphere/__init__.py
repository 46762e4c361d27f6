"""vCenter as an inventory, over the vSphere Web Services API. The only package that imports pyVmomi."""
