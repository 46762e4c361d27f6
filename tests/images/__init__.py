"""The images of `docker/`, built and run without a container engine: buildah, podman with runc, a base of mmdebstrap."""
