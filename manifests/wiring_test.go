package manifests_test

import (
	"slices"
	"strings"
	"testing"
)

// pods returns the pod templates of all, and the pods that the operator makes of
// the Prometheus k8s, as far as others refer to them: no template says those.
func pods(all []object) []pod {
	operated := pod{}
	operated.Metadata.Labels = map[string]string{"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/instance": "k8s"}
	sidecar := container{Name: "thanos-sidecar"}
	for name, port := range map[string]int{"grpc": 10901, "http": 10902} {
		sidecar.Ports = append(sidecar.Ports, struct {
			Name          string `json:"name"`
			ContainerPort int    `json:"containerPort"`
		}{name, port})
	}
	operated.Spec.Containers = []container{sidecar}
	list := []pod{operated}
	for _, o := range all {
		if o.Spec.Template != nil {
			list = append(list, *o.Spec.Template)
		}
	}
	return list
}

// has reports whether a port of that name or number is open in a pod.
func (p pod) has(name string, number int) bool {
	return slices.ContainsFunc(p.Spec.Containers, func(c container) bool {
		for _, port := range c.Ports {
			if port.Name == name || port.ContainerPort == number {
				return true
			}
		}
		return false
	})
}

func TestObjectsFindEachOther(t *testing.T) {
	for _, dir := range rendered() {
		t.Run(dir, func(t *testing.T) {
			all := objects(t, dir)
			pods := pods(all)
			for _, o := range all {
				if o.Metadata.Namespace != "monitoring" {
					t.Errorf("%s is in namespace %q, want monitoring", o, o.Metadata.Namespace)
				}
				switch o.Kind {
				case "Service":
					p := selected(t, o, o.Spec.Selector, pods)
					for _, port := range o.Spec.Ports {
						if !p.has(port.TargetPort, 0) {
							t.Errorf("%s: the pods have no port %s", o, port.TargetPort)
						}
					}
				case "PodDisruptionBudget":
					selected(t, o, o.Spec.Selector, pods)
				case "StatefulSet", "Deployment":
					if !o.Spec.Selector.selects(o.Spec.Template.Metadata.Labels) {
						t.Errorf("%s does not select its own pods", o)
					}
				case "ServiceMonitor":
					monitored(t, o, all)
				case "NetworkPolicy":
					admits(t, o, pods)
				}
			}
		})
	}
}

// selected returns the one pod template that a selector of o selects.
func selected(t *testing.T, o object, s selector, pods []pod) pod {
	t.Helper()
	var found []pod
	for _, p := range pods {
		if s.selects(p.Metadata.Labels) {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		t.Errorf("%s selects %d kinds of pods, want 1", o, len(found))
		return pod{}
	}
	return found[0]
}

func monitored(t *testing.T, monitor object, all []object) {
	t.Helper()
	services := 0
	for _, s := range all {
		if s.Kind != "Service" || !monitor.Spec.Selector.selects(s.Metadata.Labels) {
			continue
		}
		services++
		for _, e := range monitor.Spec.Endpoints {
			if !slices.Contains(portNames(s), e.Port) {
				t.Errorf("%s scrapes port %s, which %s does not have", monitor, e.Port, s)
			}
		}
	}
	if services != 1 {
		t.Errorf("%s selects %d Services, want 1", monitor, services)
	}
}

func portNames(service object) (names []string) {
	for _, p := range service.Spec.Ports {
		names = append(names, p.Name)
	}
	return names
}

func admits(t *testing.T, policy object, pods []pod) {
	t.Helper()
	target := selected(t, policy, policy.Spec.PodSelector, pods)
	for _, rule := range policy.Spec.Ingress {
		for _, port := range rule.Ports {
			if !target.has("", port.Port) {
				t.Errorf("%s opens port %d, which the pods do not have", policy, port.Port)
			}
		}
	}
}

// Who talks to whom, and that a policy admits it: kube-prometheus closes its pods
// to everyone it does not know, and so do we.
func TestPoliciesAdmitEveryConversation(t *testing.T) {
	prometheus := map[string]string{"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/instance": "k8s"}
	ours := func(component string) map[string]string {
		return map[string]string{"app.kubernetes.io/name": "varve-" + component}
	}
	all := objects(t, "base")
	for name, tc := range map[string]struct {
		from, to map[string]string
		port     int
	}{
		"query asks sidecars":              {ours("query"), prometheus, 10901},
		"query asks stores":                {ours("query"), ours("store"), 10901},
		"Grafana asks query":               {map[string]string{"app.kubernetes.io/name": "grafana"}, ours("query"), 10902},
		"Prometheus scrapes sidecars":      {prometheus, prometheus, 10902},
		"Prometheus scrapes stores":        {prometheus, ours("store"), 10902},
		"Prometheus scrapes query":         {prometheus, ours("query"), 10902},
		"Prometheus scrapes the compactor": {prometheus, ours("compact"), 10902},
	} {
		t.Run(name, func(t *testing.T) {
			for _, p := range all {
				if p.Kind != "NetworkPolicy" || !p.Spec.PodSelector.selects(tc.to) {
					continue
				}
				for _, rule := range p.Spec.Ingress {
					for _, from := range rule.From {
						for _, port := range rule.Ports {
							if from.PodSelector.selects(tc.from) && port.Port == tc.port {
								return
							}
						}
					}
				}
			}
			t.Errorf("no policy lets %v reach port %d of %v", tc.from, tc.port, tc.to)
		})
	}
}

func TestQueryLooksForServicesThatExist(t *testing.T) {
	all := objects(t, "base")
	var found []string
	for _, arg := range find(t, all, "Deployment", "varve-query").Spec.Template.Spec.Containers[0].Args {
		record, ok := strings.CutPrefix(arg, "--endpoint=dnssrv+")
		if !ok {
			continue
		}
		port, name, _ := strings.Cut(strings.TrimPrefix(record, "_"), "._tcp.")
		service, zone, _ := strings.Cut(name, ".")
		if zone != "monitoring.svc" {
			t.Errorf("%s: zone %q, want monitoring.svc", arg, zone)
		}
		if s := find(t, all, "Service", service); !slices.Contains(portNames(s), port) {
			t.Errorf("%s: the Service has no port %s", arg, port)
		}
		found = append(found, service)
	}
	if want := []string{"varve-sidecar", "varve-store"}; !slices.Equal(found, want) {
		t.Errorf("query asks %v, want %v", found, want)
	}
}

func TestPodsGiveUpWhatTheyDoNotNeed(t *testing.T) {
	for _, dir := range rendered() {
		for _, o := range objects(t, dir) {
			if o.Spec.Template == nil || !strings.HasPrefix(o.Metadata.Name, "varve-") {
				continue
			}
			p := o.Spec.Template.Spec
			if s := p.SecurityContext; !s.RunAsNonRoot || s.RunAsUser != 65534 || s.SeccompProfile.Type != "RuntimeDefault" {
				t.Errorf("%s: %s runs as %+v", dir, o, s)
			}
			if p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken {
				t.Errorf("%s: %s mounts a token of the API", dir, o)
			}
			for _, c := range slices.Concat(p.InitContainers, p.Containers) {
				s := c.SecurityContext
				if s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []string{"ALL"}) {
					t.Errorf("%s: container %s of %s may %+v", dir, c.Name, o, s)
				}
			}
			for _, c := range p.Containers {
				if len(c.Resources.Requests) == 0 {
					t.Errorf("%s: container %s of %s asks for no resources", dir, c.Name, o)
				}
			}
		}
	}
}

// What there are two of does not stand on one node, nor is it taken away at once.
func TestPairsOutliveANode(t *testing.T) {
	all := objects(t, "base")
	for kind, names := range map[string][]string{"StatefulSet": {"varve-store"}, "Deployment": {"varve-query", "varve-compact"}} {
		for _, name := range names {
			o := find(t, all, kind, name)
			apart := o.Spec.Template.Spec.Affinity.PodAntiAffinity.Preferred
			if o.Spec.Replicas != 2 || len(apart) != 1 || !apart[0].Term.LabelSelector.selects(o.Spec.Template.Metadata.Labels) {
				t.Errorf("%s has %d replicas, which are kept apart by %+v", o, o.Spec.Replicas, apart)
			}
			if o.Spec.Strategy.Type != "" {
				t.Errorf("%s is replaced by %s, so that all its pods are away", o, o.Spec.Strategy.Type)
			}
			if budget := find(t, all, "PodDisruptionBudget", name); budget.Spec.MaxUnavailable != 1 {
				t.Errorf("%s allows %d pods to be away, want 1", budget, budget.Spec.MaxUnavailable)
			}
		}
	}
}

func TestProbesAskWhatTheBinariesServe(t *testing.T) {
	for _, o := range objects(t, "base") {
		if o.Spec.Template == nil {
			continue
		}
		for _, c := range o.Spec.Template.Spec.Containers {
			if c.LivenessProbe == nil || c.LivenessProbe.HTTPGet.Path != "/-/healthy" || c.LivenessProbe.HTTPGet.Port != "http" {
				t.Errorf("%s: liveness probe is %+v", o, c.LivenessProbe)
			}
			if c.ReadinessProbe == nil || c.ReadinessProbe.HTTPGet.Path != "/-/ready" || c.ReadinessProbe.HTTPGet.Port != "http" {
				t.Errorf("%s: readiness probe is %+v", o, c.ReadinessProbe)
			}
		}
	}
}

func TestKubePrometheusKeepsWhatIsItsOwn(t *testing.T) {
	for dir, want := range map[string]struct{ cluster, image string }{
		"overlays/kind":               {"kind", "varve-io/sidecar:dev"},
		"overlays/production-example": {"production-1", "registry.example.com/varve/sidecar:v0.1.0"},
	} {
		t.Run(dir, func(t *testing.T) {
			all := objects(t, dir)
			p := find(t, all, "Prometheus", "k8s").Spec
			if p.Image != "quay.io/prometheus/prometheus:v3.12.0" || p.ServiceAccountName != "prometheus-k8s" {
				t.Errorf("the patched Prometheus has image %q and service account %q", p.Image, p.ServiceAccountName)
			}
			if p.Replicas != 2 || p.ExternalLabels["cluster"] != want.cluster {
				t.Errorf("got %d replicas and external labels %v, want 2 and cluster=%s", p.Replicas, p.ExternalLabels, want.cluster)
			}
			if p.Thanos == nil || p.Thanos.Image != want.image {
				t.Fatalf("spec.thanos is %+v, want image %s", p.Thanos, want.image)
			}
			secret := find(t, all, "Secret", p.Thanos.ObjectStorageConfig.Name)
			if len(secret.Data[p.Thanos.ObjectStorageConfig.Key]) == 0 {
				t.Errorf("%s has no key %s", secret, p.Thanos.ObjectStorageConfig.Key)
			}
			source := find(t, all, "Secret", "grafana-datasources").StringData["datasources.yaml"]
			if !strings.Contains(source, `"url": "http://varve-query.monitoring.svc:10902"`) || strings.Contains(source, "prometheus-k8s") {
				t.Errorf("Grafana's data source is\n%s", source)
			}
			annotations := find(t, all, "Deployment", "grafana").Spec.Template.Metadata.Annotations
			if annotations["varve.io/data-source"] == "" || annotations["checksum/grafana-datasources"] == "" {
				t.Errorf("Grafana's pods have annotations %v", annotations)
			}
		})
	}
}
