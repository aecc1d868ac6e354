package manifests_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// stage is one FROM of the Dockerfile with the instructions that follow it.
type stage struct {
	from, name   string
	instructions [][]string // split at blanks
}

// find returns the arguments of every instruction of that name.
func (s stage) find(instruction string) (all [][]string) {
	for _, i := range s.instructions {
		if i[0] == instruction {
			all = append(all, i[1:])
		}
	}
	return all
}

// stages reads the Dockerfile.
func stages(t *testing.T) map[string]stage {
	t.Helper()
	b, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(string(b), "")
	all, current := map[string]stage{}, stage{}
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
			continue
		case words[0] == "FROM":
			n := len(words)
			if n < 4 || words[n-2] != "AS" {
				t.Fatalf("%q names no stage", line)
			}
			current = stage{from: words[n-3], name: words[n-1]}
		default:
			current.instructions = append(current.instructions, words)
		}
		all[current.name] = current
	}
	return all
}

func TestEveryImageIsOneStaticBinaryOfNobody(t *testing.T) {
	all := stages(t)
	if base := all["base"]; base.from != "scratch" || len(base.find("RUN")) > 0 {
		t.Errorf("base is made from %s with %v, want scratch as it is", base.from, base.find("RUN"))
	}
	if user := all["base"].find("USER"); len(user) != 1 || user[0][0] != "65534:65534" {
		t.Errorf("base has user %v, want the number that runAsNonRoot can check", user)
	}
	build := slices.Concat(all["build"].find("RUN")...)
	for _, want := range []string{"CGO_ENABLED=0", "-trimpath", "/out/"} {
		if !slices.Contains(build, want) {
			t.Errorf("the binaries are built without %s: %q", want, build)
		}
	}
	for _, component := range []string{"sidecar", "store", "query", "compact", "bucket"} {
		s := all[component]
		if s.from != "base" || len(s.find("USER")) > 0 {
			t.Errorf("%s is made from %q with user %v, want base and its user", component, s.from, s.find("USER"))
		}
		if !slices.Contains(build, "./cmd/"+component) {
			t.Errorf("%s is not built", component)
		}
		if copied := s.find("COPY"); len(copied) != 1 || !slices.Equal(copied[0], []string{"--from=build", "/out/" + component, "/bin/" + component}) {
			t.Errorf("%s copies %v", component, copied)
		}
		if entry := s.find("ENTRYPOINT"); len(entry) != 1 || strings.Join(entry[0], " ") != `["/bin/`+component+`"]` {
			t.Errorf("%s enters at %v", component, entry)
		}
	}
}

// No Docker here: what the build stage copies is copied, as .dockerignore lets it,
// and the go command asked whether the binaries' packages are all there.
func TestTheBuildStageHasAllThatItCompiles(t *testing.T) {
	context := t.TempDir()
	for _, words := range stages(t)["build"].find("COPY") {
		for _, source := range words[:len(words)-1] {
			copied(t, source, context)
		}
	}
	cmd := exec.Command("go", "list", "-deps", "-test=false", "./cmd/sidecar", "./cmd/store", "./cmd/query", "./cmd/compact", "./cmd/bucket")
	cmd.Dir = context
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("go list in the build stage: %v\n%s", err, out)
	}
}

// copied copies a file or directory from the root of the repository, but for what
// .dockerignore keeps out.
func copied(t *testing.T, source, target string) {
	t.Helper()
	b, err := os.ReadFile("../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	rules := strings.Fields(regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(string(b), ""))
	if !slices.Contains(rules, "!"+source) {
		t.Fatalf("COPY %s: .dockerignore keeps it out", source)
	}
	err = filepath.WalkDir(filepath.Join("..", source), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		for _, rule := range rules {
			if pattern, anywhere := strings.CutPrefix(rule, "**/"); anywhere {
				if out, _ := filepath.Match(pattern, d.Name()); out && d.IsDir() {
					return filepath.SkipDir
				} else if out {
					return nil
				}
			}
		}
		to := filepath.Join(target, strings.TrimPrefix(path, ".."+string(filepath.Separator)))
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, content, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}
