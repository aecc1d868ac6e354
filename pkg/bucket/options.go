package bucket

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Options says where the configuration of the object storage comes from, as
// objstore's YAML (docs/objstore.md). At most one of the two is set.
type Options struct {
	// Config is the YAML itself (--objstore.config).
	Config string
	// ConfigFile is the path of a file that holds it (--objstore.config-file).
	ConfigFile string
}

// Defaults returns the options of a component without object storage.
func Defaults() Options { return Options{} }

// Configured reports whether there is any object storage.
func (o Options) Configured() bool { return o.Config != "" || o.ConfigFile != "" }

// Validate checks the options alone; Open checks what they lead to.
func (o Options) Validate() error {
	if o.Config != "" && o.ConfigFile != "" {
		return errors.New("--objstore.config and --objstore.config-file are both set: set only one of them")
	}
	return nil
}

// content returns the YAML with every $(NAME) replaced from the environment.
func (o Options) content() ([]byte, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if !o.Configured() {
		return nil, errors.New("no object storage is configured: set --objstore.config or --objstore.config-file")
	}
	text := o.Config
	if o.ConfigFile != "" {
		b, err := os.ReadFile(o.ConfigFile)
		if err != nil {
			return nil, fmt.Errorf("--objstore.config-file: %w", err)
		}
		text = string(b)
	}
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("the object storage configuration is empty: it needs at least type and config")
	}
	return expandEnv(text)
}

// expandEnv replaces every $(NAME) in text by the environment's value; one that is
// not set is an error, for a configuration with a hole is never what was meant.
func expandEnv(text string) ([]byte, error) {
	var unset []string
	expanded := regexp.MustCompile(`\$\(([A-Za-z_][A-Za-z0-9_]*)\)`).ReplaceAllStringFunc(text, func(ref string) string {
		name := ref[2 : len(ref)-1]
		value, ok := os.LookupEnv(name)
		if !ok && !slices.Contains(unset, name) {
			unset = append(unset, name)
		}
		return value
	})
	if len(unset) > 0 {
		return nil, fmt.Errorf("the object storage configuration uses $(%s), which the environment does not set", strings.Join(unset, "), $("))
	}
	return []byte(expanded), nil
}
