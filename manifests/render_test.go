// Package manifests_test holds what must be true of the manifests: they render,
// follow the schemas of Kubernetes and prometheus-operator, refer to each other
// correctly, and every argument in them is one that the binaries take. Nothing
// here reaches a network or a cluster.
package manifests_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// kubePrometheus is what the overlays fetch; tests render the stand-in instead.
const (
	kubePrometheus = "https://github.com/prometheus-operator/kube-prometheus?ref=v0.18.0"
	standIn        = "../../testdata/kube-prometheus"
)

// rendered are the directories that an operator renders.
func rendered() []string {
	return []string{"base", "overlays/kind", "overlays/production-example"}
}

// render returns what kustomize makes of a directory, as a stream of YAML
// documents.
func render(t *testing.T, dir string) []byte {
	t.Helper()
	memory := filesys.MakeFsInMemory()
	fetched := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(path)) {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasPrefix(path, dir+"/") {
			fetched += bytes.Count(content, []byte("- "+kubePrometheus))
		}
		content = bytes.ReplaceAll(content, []byte(kubePrometheus), []byte(standIn))
		return memory.WriteFile("/"+path, content)
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Count(dir, "overlays"); fetched != want {
		t.Fatalf("%s names %s %d times, want %d", dir, kubePrometheus, fetched, want)
	}
	all, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(memory, "/"+dir)
	if err != nil {
		t.Fatalf("render %s: %v", dir, err)
	}
	text, err := all.AsYaml()
	if err != nil {
		t.Fatalf("render %s: %v", dir, err)
	}
	return text
}

// object is the part of a Kubernetes object that tests look at.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string            `json:"name"`
		Namespace string            `json:"namespace"`
		Labels    map[string]string `json:"labels"`
	} `json:"metadata"`
	Data       map[string][]byte `json:"data"`
	StringData map[string]string `json:"stringData"`
	Spec       struct {
		Replicas int `json:"replicas"`
		Strategy struct {
			Type string `json:"type"`
		} `json:"strategy"`
		MaxUnavailable int      `json:"maxUnavailable"`
		Selector       selector `json:"selector"`
		PodSelector    selector `json:"podSelector"`
		Template       *pod     `json:"template"`
		Ports          []struct {
			Name       string `json:"name"`
			TargetPort string `json:"targetPort"`
		} `json:"ports"`
		Endpoints []struct {
			Port string `json:"port"`
		} `json:"endpoints"`
		Ingress []struct {
			From []struct {
				PodSelector selector `json:"podSelector"`
			} `json:"from"`
			Ports []struct {
				Port int `json:"port"`
			} `json:"ports"`
		} `json:"ingress"`

		Image              string            `json:"image"`
		ServiceAccountName string            `json:"serviceAccountName"`
		ExternalLabels     map[string]string `json:"externalLabels"`
		Thanos             *thanos           `json:"thanos"`
	} `json:"spec"`
}

func (o object) String() string { return o.Kind + " " + o.Metadata.Name }

// pod is a pod template.
type pod struct {
	Metadata struct {
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		Affinity struct {
			PodAntiAffinity struct {
				Preferred []struct {
					Term struct {
						LabelSelector selector `json:"labelSelector"`
					} `json:"podAffinityTerm"`
				} `json:"preferredDuringSchedulingIgnoredDuringExecution"`
			} `json:"podAntiAffinity"`
		} `json:"affinity"`
		AutomountServiceAccountToken *bool       `json:"automountServiceAccountToken"`
		InitContainers               []container `json:"initContainers"`
		Containers                   []container `json:"containers"`
		SecurityContext              struct {
			RunAsNonRoot   bool  `json:"runAsNonRoot"`
			RunAsUser      int64 `json:"runAsUser"`
			SeccompProfile struct {
				Type string `json:"type"`
			} `json:"seccompProfile"`
		} `json:"securityContext"`
	} `json:"spec"`
}

type container struct {
	Name  string   `json:"name"`
	Image string   `json:"image"`
	Args  []string `json:"args"`
	Ports []struct {
		Name          string `json:"name"`
		ContainerPort int    `json:"containerPort"`
	} `json:"ports"`
	Resources struct {
		Requests map[string]any `json:"requests"`
	} `json:"resources"`
	LivenessProbe   *probe `json:"livenessProbe"`
	ReadinessProbe  *probe `json:"readinessProbe"`
	SecurityContext struct {
		AllowPrivilegeEscalation *bool `json:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool  `json:"readOnlyRootFilesystem"`
		Capabilities             struct {
			Drop []string `json:"drop"`
		} `json:"capabilities"`
	} `json:"securityContext"`
}

type probe struct {
	HTTPGet struct {
		Path string `json:"path"`
		Port string `json:"port"`
	} `json:"httpGet"`
}

// thanos is the part of a Prometheus resource from which the operator makes the
// sidecar.
type thanos struct {
	Image               string `json:"image"`
	Version             string `json:"version"`
	ObjectStorageConfig struct {
		Name string `json:"name"`
		Key  string `json:"key"`
	} `json:"objectStorageConfig"`
}

// selector is a set of labels, written with matchLabels or, by Services, without.
type selector map[string]string

func (s *selector) UnmarshalJSON(b []byte) error {
	var with struct {
		MatchLabels map[string]string `json:"matchLabels"`
	}
	if err := json.Unmarshal(b, &with); err != nil || with.MatchLabels != nil {
		*s = with.MatchLabels
		return err
	}
	return json.Unmarshal(b, (*map[string]string)(s))
}

// selects says whether labels have all that s asks for. An empty selector, which
// would select everything, is none of ours.
func (s selector) selects(labels map[string]string) bool {
	for k, v := range s {
		if labels[k] != v {
			return false
		}
	}
	return len(s) > 0
}

// objects returns what kustomize makes of a directory.
func objects(t *testing.T, dir string) []object {
	t.Helper()
	var all []object
	for document := range bytes.SplitSeq(render(t, dir), []byte("\n---\n")) {
		var o object
		if err := yaml.Unmarshal(document, &o); err != nil {
			t.Fatalf("read an object of %s: %v\n%s", dir, err, document)
		}
		all = append(all, o)
	}
	return all
}

// find returns the one object of that kind and name.
func find(t *testing.T, all []object, kind, name string) object {
	t.Helper()
	i := slices.IndexFunc(all, func(o object) bool { return o.Kind == kind && o.Metadata.Name == name })
	if i < 0 {
		t.Fatalf("there is no %s %s", kind, name)
	}
	return all[i]
}
