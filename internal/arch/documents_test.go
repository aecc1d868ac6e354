package arch

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestArchitectureAndTreeAgree(t *testing.T) {
	text := read(t, "ARCHITECTURE.md")
	if n := strings.Count(text, "\n"); n > maxMap {
		t.Errorf("ARCHITECTURE.md has %d lines, the ceiling is %d", n, maxMap)
	}

	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`((?:pkg|cmd|internal)/[a-z0-9/]+)`").FindAllStringSubmatch(text, -1) {
		named[key(m[1])] = true
	}
	exists := map[string]bool{}
	for _, p := range packages(t) {
		exists[p.key()] = true
		if !named[p.key()] {
			t.Errorf("ARCHITECTURE.md does not name %s", strings.TrimPrefix(p.ImportPath, module+"/"))
		}
	}
	for k := range named {
		if !exists[k] && !slices.Contains(planned(), k) {
			t.Errorf("ARCHITECTURE.md names %s, which does not exist", k)
		}
	}
	for _, k := range planned() {
		if exists[k] {
			t.Logf("%s exists; strike it from planned()", k)
		}
	}
}

func TestLinksInDocumentsLead(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)\s]*)?\)`)
	for _, name := range tracked(t, "*.md") {
		for _, m := range link.FindAllStringSubmatch(read(t, name), -1) {
			if strings.Contains(m[1], ":") { // https, mailto
				continue
			}
			target := filepath.Join(filepath.Dir(name), m[1])
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
			if len(tracked(t, target)) == 0 {
				t.Errorf("%s links to %s, which is not committed", name, m[1])
			}
		}
	}
}

// Code may lean on a document only if it is there.
func TestDocumentsNamedInCodeExist(t *testing.T) {
	document := regexp.MustCompile(`docs/(?:design|format)/[A-Za-z0-9-]+\.md`)
	for _, name := range slices.Concat(tracked(t, "*.go"), tracked(t, "*.proto")) {
		for _, d := range document.FindAllString(read(t, name), -1) {
			if _, err := os.Stat(filepath.Join(root, d)); err != nil && !slices.Contains(plannedDocuments(), d) {
				t.Errorf("%s leans on %s: %v", name, d, err)
			}
		}
	}
}

func TestTheIndexNamesEveryDesignNote(t *testing.T) {
	index := read(t, "docs/design/README.md")
	for _, name := range tracked(t, "docs/design/[0-9]*.md") {
		if !strings.Contains(index, "]("+filepath.Base(name)+")") {
			t.Errorf("docs/design/README.md does not list %s", filepath.Base(name))
		}
	}
}

// What is committed reads the same on every machine.
func TestTrackedFilesNameNoMachine(t *testing.T) {
	home := regexp.MustCompile(`(?m)(^|[\s"'=(:,` + "`" + `])/(work|root|tmp/varve|Users|home/[a-z]+)/[^\s"']*`)
	for _, name := range tracked(t, ".") {
		path := filepath.Join(root, name)
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			continue // deleted, or a link
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if m := home.Find(b); m != nil {
			t.Errorf("%s names a path of one machine: %q", name, m)
		}
	}
}

// tracked returns the files that git tracks, from the root.
func tracked(t *testing.T, pattern string) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z", "--", pattern)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("not a git checkout, so nothing says which files are committed: %v", err)
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if os.IsNotExist(err) {
		t.Errorf("%s is tracked but absent", name)
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
