package s3

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/auth"
	endpoints "github.com/aws/smithy-go/endpoints"
)

// place is where a bucket is, and how requests there are signed. Left to itself, the SDK
// works that out for each request, twice, with the same result and a stack of 10 KiB.
type place struct {
	endpoint endpoints.Endpoint
	signing  smithy.Properties
}

// settle has all requests go to where the SDK says that the bucket is, if they are signed
// there in the usual way. Where they are not, or the SDK has an objection, it is asked each
// time, and says so.
func settle(ctx context.Context, o *s3.Options, bucket string) {
	found, err := s3.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, s3.EndpointParameters{
		Bucket: &bucket, Region: &o.Region, Endpoint: o.BaseEndpoint, ForcePathStyle: &o.UsePathStyle,
		UseDualStack: aws.Bool(o.EndpointOptions.UseDualStackEndpoint == dualStack),
	}.WithDefaults())
	if err != nil {
		return
	}
	ways, _ := auth.GetAuthOptions(&found.Properties)
	if len(ways) != 1 || ways[0].SchemeID != "sigv4" {
		return // a directory bucket's sessions, for one
	}
	p := &place{endpoints.Endpoint{URI: found.URI, Headers: found.Headers}, ways[0].SignerProperties}
	o.EndpointResolverV2, o.AuthSchemeResolver = p, p
}

// ResolveEndpoint implements s3.EndpointResolverV2.
func (p *place) ResolveEndpoint(context.Context, s3.EndpointParameters) (endpoints.Endpoint, error) {
	return p.endpoint, nil
}

// ResolveAuthSchemes implements s3.AuthSchemeResolver. What it returns is the SDK's to change.
func (p *place) ResolveAuthSchemes(context.Context, *s3.AuthResolverParameters) ([]*auth.Option, error) {
	way := &auth.Option{SchemeID: auth.SchemeIDSigV4}
	way.SignerProperties.SetAll(&p.signing)
	return []*auth.Option{way}, nil
}
