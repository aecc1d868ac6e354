package manifests_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// rulesOf returns the rules of a PrometheusRule as Prometheus reads them.
func rulesOf(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var object struct {
		Spec map[string]any `json:"spec"`
	}
	if err := yaml.Unmarshal(content, &object); err != nil {
		t.Fatal(err)
	}
	rules, err := yaml.Marshal(object.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	tools := os.Getenv("VARVE_TOOLS")
	if tools == "" {
		t.Skip("VARVE_TOOLS is not set, so there is no promtool: run make manifests")
	}
	dir := t.TempDir()
	tests, err := os.ReadFile("testdata/compact-rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rules := rulesOf(t, "compact/prometheusrule.yaml")
	for name, content := range map[string][]byte{"rules.yaml": rules, "tests.yaml": tests} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"}, {"test", "rules", "tests.yaml"}} {
		cmd := exec.Command(filepath.Join(tools, "promtool"), args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	for _, alert := range regexp.MustCompile(`alert: (\w+)`).FindAllSubmatch(rules, -1) {
		if !strings.Contains(string(tests), "exp_alerts") || strings.Count(string(tests), "alertname: "+string(alert[1])) < 3 {
			t.Errorf("%s is not tested both ways", alert[1])
		}
	}
}

// An alert over a metric that nobody has never fires.
func TestAlertsUseMetricsAndRunbooksThatExist(t *testing.T) {
	rules := string(rulesOf(t, "compact/prometheusrule.yaml"))
	sources, err := filepath.Glob("../pkg/compact/*.go")
	if err != nil || len(sources) == 0 {
		t.Fatalf("got no sources: %v", err)
	}
	var code strings.Builder
	for _, file := range sources {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	for _, metric := range regexp.MustCompile(`varve_compact_(\w+)`).FindAllStringSubmatch(rules, -1) {
		if !strings.Contains(code.String(), `"`+metric[0]+`"`) && !strings.Contains(code.String(), `desc("`+metric[1]+`"`) {
			t.Errorf("nothing exports %s", metric[0])
		}
	}
	doc, err := os.ReadFile("../docs/compact.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, alert := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(rules, -1) {
		if !strings.Contains(string(doc), "\n### "+alert[1]+"\n") || !strings.Contains(rules, "#"+strings.ToLower(alert[1])) {
			t.Errorf("docs/compact.md has no chapter %s, or the alert does not name it", alert[1])
		}
	}
}
