package block

import "testing"

func TestObjectNames(t *testing.T) {
	b := id("01J8XPPZ6EZJ7QYJ4ZQJ0V4R5T")
	for got, want := range map[string]string{
		MetaName(b):               "01J8XPPZ6EZJ7QYJ4ZQJ0V4R5T/meta.json",
		IndexName(b):              "01J8XPPZ6EZJ7QYJ4ZQJ0V4R5T/index",
		SegmentName(b, 1):         "01J8XPPZ6EZJ7QYJ4ZQJ0V4R5T/chunks/000001",
		MarkName(b, DeletionMark): "01J8XPPZ6EZJ7QYJ4ZQJ0V4R5T/deletion-mark.json",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestParseNameKnowsWhatBelongsToABlock(t *testing.T) {
	const dir = "01J8XPPZ6EZJ7QYJ4ZQJ0V4R5T"
	for name, tc := range map[string]struct {
		object, rel string
		ok          bool
	}{
		"an object of a block":          {dir + "/meta.json", "meta.json", true},
		"an object further down":        {dir + "/chunks/000001", "chunks/000001", true},
		"a directory marker":            {dir + "/", "", true},
		"a file named like a block":     {dir, "", false},
		"a legacy copy of a meta":       {"debug/metas/" + dir + ".json", "", false},
		"a ULID in lower case":          {"01j8xppz6ezj7qyj4zqj0v4r5t/index", "", false},
		"a ULID beyond 128 bits":        {"8ZZZZZZZZZZZZZZZZZZZZZZZZZ/index", "", false},
		"a letter that ULIDs leave out": {"01J8XPPZ6EZJ7QYJ4ZQJ0V4R5U/index", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, rel, ok := ParseName(tc.object)
			if rel != tc.rel || ok != tc.ok || ok && got.String() != dir {
				t.Errorf("%s: got %s, %q, %t; want %s, %q, %t", tc.object, got, rel, ok, dir, tc.rel, tc.ok)
			}
		})
	}
}
