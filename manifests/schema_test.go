package manifests_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// schema is a JSON schema, or OpenAPI's dialect of it.
type schema = map[string]any

func TestManifestsFollowTheirSchemas(t *testing.T) {
	check := kubeconform(t)
	for _, dir := range rendered() {
		t.Run(dir, func(t *testing.T) {
			if out, err := check(render(t, dir)); err != nil {
				t.Errorf("kubeconform: %v\n%s", err, out)
			}
		})
	}
}

// The hand tool's Job is in no kustomization: an operator changes its arguments and creates it.
func TestTheJobOfTheHandTool(t *testing.T) {
	content, err := os.ReadFile("bucket/job.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var job object
	if err := yaml.Unmarshal(content, &job); err != nil {
		t.Fatal(err)
	}
	if pod := job.Spec.Template.Spec; !pod.SecurityContext.RunAsNonRoot || !pod.Containers[0].SecurityContext.ReadOnlyRootFilesystem {
		t.Errorf("it runs as %+v", pod.SecurityContext)
	}
	// Its bucket is not there: that is what it complains of when it has taken all arguments.
	if out := run(t, binaries(t)["bucket"], job.Spec.Template.Spec.Containers[0].Args); !strings.Contains(out, "open bucket: --objstore.config-file") {
		t.Errorf("it ended with %q", out)
	}
	if out, err := kubeconform(t)(content); err != nil {
		t.Errorf("kubeconform: %v\n%s", err, out)
	}
}

// A check that lets everything pass would pass.
func TestWhatBreaksASchemaIsRefused(t *testing.T) {
	check := kubeconform(t)
	text := string(render(t, "overlays/production-example"))
	for name, tc := range map[string]struct{ right, wrong, complaint string }{
		"a field of a container that does not exist":    {"readOnlyRootFilesystem:", "readOnlyRootFilesytem:", "'readOnlyRootFilesytem' not allowed"},
		"a field of the operator's that does not exist": {"objectStorageConfig:", "objectStorage:", "'objectStorage' not allowed"},
		"a field of metadata that does not exist":       {"  name: varve-query\n", "  nam: varve-query\n", "'nam' not allowed"},
		"a value of the wrong type":                     {"replicas: 2", "replicas: two", "got string, want integer"},
		"a probe without its port":                      {"            port: http\n          periodSeconds: 5", "          periodSeconds: 5", "missing property 'port'"},
		"an unknown kind":                               {"kind: PodDisruptionBudget", "kind: PodDisruptionBudgets", "could not find schema for PodDisruptionBudgets"},
		"a unit that is no quantity's type":             {"memory: 4Gi", "memory: [4Gi]", "got array, want number or string"},
	} {
		t.Run(name, func(t *testing.T) {
			broken := strings.ReplaceAll(text, tc.right, tc.wrong)
			if broken == text {
				t.Fatalf("the manifests have no %q to break", tc.right)
			}
			out, err := check([]byte(broken))
			if err == nil || !strings.Contains(string(out), tc.complaint) {
				t.Errorf("got error %v and %q, want a refusal that names %s", err, out, tc.complaint)
			}
		})
	}
}

// kubeconform returns a function that checks a stream of objects against schemas
// made from the Kubernetes API and the operator's resource definitions, with
// nothing allowed that they do not name.
func kubeconform(t *testing.T) func(objects []byte) ([]byte, error) {
	t.Helper()
	tools := os.Getenv("VARVE_TOOLS")
	if tools == "" {
		t.Skip("VARVE_TOOLS is not set, so there is no kubeconform: run make manifests")
	}
	dir := t.TempDir()
	modules := schemaModules(t)
	api := definitions(t, modules[kubernetes])
	writeKubernetes(t, dir, api)
	writeOperator(t, dir, api, modules[prometheusOperator])
	return func(objects []byte) ([]byte, error) {
		cmd := exec.Command(filepath.Join(tools, "kubeconform"), "-strict",
			"-schema-location", filepath.Join(dir, "{{.ResourceKind}}-{{.Group}}-{{.ResourceAPIVersion}}.json"))
		cmd.Stdin = bytes.NewReader(objects)
		return cmd.CombinedOutput()
	}
}

// The modules that schemas/go.mod pins.
const (
	kubernetes         = "k8s.io/kubernetes"
	prometheusOperator = "github.com/prometheus-operator/prometheus-operator"
)

// schemaModules returns the directories of those modules in the module cache.
func schemaModules(t *testing.T) map[string]string {
	t.Helper()
	cmd := exec.Command("go", "mod", "download", "-json", kubernetes, prometheusOperator)
	cmd.Dir = "schemas"
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("download the modules of schemas/go.mod: %v: %s", err, stderr.String())
	}
	dirs := map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var m struct{ Path, Dir string }
		if err := d.Decode(&m); err != nil {
			t.Fatalf("decode the output of go mod download: %v", err)
		}
		dirs[m.Path] = m.Dir
	}
	return dirs
}

// definitions returns the API's types from Kubernetes' OpenAPI document, strict.
func definitions(t *testing.T, module string) map[string]schema {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(module, "api", "openapi-spec", "swagger.json"))
	if err != nil {
		t.Fatal(err)
	}
	var api struct {
		Definitions map[string]schema `json:"definitions"`
	}
	if err := json.Unmarshal(b, &api); err != nil {
		t.Fatalf("read Kubernetes' OpenAPI document: %v", err)
	}
	for name, d := range api.Definitions {
		if !strings.HasPrefix(name, "io.k8s.apiextensions-apiserver.") { // schemas of schemas are open
			api.Definitions[name] = strict(d)
		}
	}
	return api.Definitions
}

// writeKubernetes writes a schema for every kind of the API.
func writeKubernetes(t *testing.T, dir string, api map[string]schema) {
	t.Helper()
	for name, d := range api {
		kinds, _ := d["x-kubernetes-group-version-kind"].([]any)
		if len(kinds) != 1 || strings.HasSuffix(name, "List") { // not an object that is applied
			continue
		}
		k, _ := kinds[0].(map[string]any)
		writeSchema(t, filepath.Join(dir, fileName(fmt.Sprint(k["kind"]), fmt.Sprint(k["group"]), fmt.Sprint(k["version"]))), self(api, name))
	}
}

// writeOperator writes a schema for every kind of the operator's.
func writeOperator(t *testing.T, dir string, api map[string]schema, module string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(module, "example", "prometheus-operator-crd", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no resource definitions in %s: %v", module, err)
	}
	const meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd struct {
			Spec struct {
				Group string `json:"group"`
				Names struct {
					Kind string `json:"kind"`
				} `json:"names"`
				Versions []struct {
					Name   string `json:"name"`
					Schema struct {
						OpenAPIV3Schema schema `json:"openAPIV3Schema"`
					} `json:"schema"`
				} `json:"versions"`
			} `json:"spec"`
		}
		if err := yaml.Unmarshal(b, &crd); err != nil {
			t.Fatalf("read %s: %v", file, err)
		}
		for _, v := range crd.Spec.Versions {
			s := v.Schema.OpenAPIV3Schema
			properties, ok := s["properties"].(map[string]any)
			if !ok {
				t.Fatalf("%s: version %s has no properties", file, v.Name)
			}
			properties["metadata"] = schema{"$ref": "#/definitions/" + meta}
			s = strict(s)
			s["definitions"] = self(api, meta)["definitions"]
			writeSchema(t, filepath.Join(dir, fileName(crd.Spec.Names.Kind, crd.Spec.Group, v.Name)), s)
		}
	}
}

// fileName returns where kubeconform looks for a kind. To it, the group without a
// name has that of its version.
func fileName(kind, group, version string) string {
	return fmt.Sprintf("%s-%s-%s.json", strings.ToLower(kind), cmp.Or(group, version), version)
}

func writeSchema(t *testing.T, path string, s schema) {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// self returns the schema of one definition together with those it leans on.
func self(api map[string]schema, name string) schema {
	needed := map[string]any{}
	var need func(v any)
	need = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				name := strings.TrimPrefix(ref, "#/definitions/")
				if _, seen := needed[name]; !seen {
					needed[name] = api[name]
					need(api[name])
				}
			}
			for _, inner := range v {
				need(inner)
			}
		case []any:
			for _, inner := range v {
				need(inner)
			}
		}
	}
	root := schema{"$ref": "#/definitions/" + name}
	need(root)
	root["definitions"] = needed
	return root
}

// strict returns a copy of s in which an object has no properties but those that
// are named, and in which the API's two-typed values are what the API server
// takes them for.
func strict(s schema) schema {
	switch {
	case s["x-kubernetes-int-or-string"] == true, s["format"] == "int-or-string":
		return schema{"type": []any{"string", "integer"}}
	case s["type"] == "string" && strings.HasPrefix(fmt.Sprint(s["description"]), "Quantity is"):
		return schema{"type": []any{"string", "number"}}
	}
	out := schema{}
	for key, v := range s {
		switch inner, _ := v.(map[string]any); {
		case key == "properties":
			properties := schema{}
			for name, p := range inner {
				property, _ := p.(map[string]any)
				properties[name] = strict(property)
			}
			out[key] = properties
		case (key == "items" || key == "additionalProperties") && inner != nil:
			out[key] = strict(inner)
		default:
			out[key] = v
		}
	}
	_, named := s["properties"]
	_, others := s["additionalProperties"]
	if named && !others && s["x-kubernetes-preserve-unknown-fields"] != true {
		out["additionalProperties"] = false
	}
	return out
}
