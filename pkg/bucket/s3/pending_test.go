package s3_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/varve-io/varve/pkg/bucket"
)

// TestPendingUploadsComePageByPage lists what a store hands out in pages; no real
// one here has so many.
func TestPendingUploadsComePageByPage(t *testing.T) {
	c := fake(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		page, next := 1, `<IsTruncated>true</IsTruncated><NextKeyMarker>k1</NextKeyMarker><NextUploadIdMarker>u1</NextUploadIdMarker>`
		if q.Get("key-marker") == "k1" && q.Get("upload-id-marker") == "u1" {
			page, next = 2, `<IsTruncated>false</IsTruncated>`
		}
		fmt.Fprintf(w, `<ListMultipartUploadsResult>%s<Upload><Key>k%d</Key><UploadId>u%d</UploadId><Initiated>2026-01-02T03:04:05Z</Initiated></Upload></ListMultipartUploadsResult>`, next, page, page)
	})
	var got []string
	err := bucket.PendingUploads(t.Context(), open(t, c), "", func(u bucket.PendingUpload) error {
		got = append(got, fmt.Sprint(u.Name, " ", u.ID, " ", u.Begun.Year()))
		return nil
	})
	if want := []string{"k1 u1 2026", "k2 u2 2026"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}
