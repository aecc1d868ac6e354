package s3

import (
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// encryption is what requests say of encryption at the server.
type encryption struct {
	serverSide             types.ServerSideEncryption
	kmsKey, kmsContext     *string
	algorithm, key, digest *string // SSE-C
}

func newEncryption(s SSE) (encryption, error) {
	var e encryption
	switch s.Type {
	case sseS3:
		e.serverSide = types.ServerSideEncryptionAes256
	case sseKMS:
		e.serverSide, e.kmsKey = types.ServerSideEncryptionAwsKms, &s.KMSKeyID
		if len(s.KMSEncryptionContext) > 0 {
			c, err := s.kmsContext()
			if err != nil {
				return encryption{}, err
			}
			e.kmsContext = &c
		}
	case sseC:
		key, digest, err := s.customerKey()
		if err != nil {
			return encryption{}, err
		}
		e.algorithm, e.key, e.digest = aws.String("AES256"), &key, &digest
	}
	return e, nil
}

// metadata is put_user_metadata: what is a header of the protocol, such as
// X-Amz-Storage-Class, and what is the user's own.
type metadata struct {
	user   map[string]string
	amazon map[string]string
}

func splitMetadata(all map[string]string) metadata {
	m := metadata{user: map[string]string{}, amazon: map[string]string{}}
	for key, value := range all {
		lower := strings.ToLower(key)
		switch user := strings.TrimPrefix(lower, "x-amz-meta-"); {
		case user != lower:
			m.user[user] = value
		case strings.HasPrefix(lower, "x-amz-"), slices.Contains([]string{
			"cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires",
		}, lower):
			m.amazon[key] = value
		default:
			m.user[key] = value
		}
	}
	return m
}

// headers adds the headers to one request.
func (m metadata) headers(o *s3.Options) {
	for key, value := range m.amazon {
		o.APIOptions = append(o.APIOptions, smithyhttp.SetHeaderValue(key, value))
	}
}
