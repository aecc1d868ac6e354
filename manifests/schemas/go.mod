// The Kubernetes API and the operator's resources that the manifests are checked
// against: nothing of them is compiled, the test reads their schemas.
module github.com/varve-io/varve/manifests/schemas

go 1.26.0

require (
	github.com/prometheus-operator/prometheus-operator v0.85.0
	k8s.io/kubernetes v1.36.3
)
