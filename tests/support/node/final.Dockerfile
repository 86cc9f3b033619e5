# The image `kind build node-image` made, with a pod network whose manifest needs no image from elsewhere.
ARG BUILT
FROM $BUILT
COPY pod-network.yaml /kind/manifests/default-cni.yaml
