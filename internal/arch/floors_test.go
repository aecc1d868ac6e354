package arch

// rule is what the floor plan says of one package.
type rule struct {
	// floor is the package's height; imports go to lower floors, or are listed in sideways.
	floor int
	// may names the packages of ours it may import, separated by spaces, without
	// the leading pkg/. Everything else is forbidden.
	may string
}

// The floors' names, bottom up.
const (
	beside  = iota // beside the tower: process plumbing and the rules themselves
	storage        // object storage
	formats        // formats and values
	pure           // pure algorithms
	blocks         // blocks inside a bucket
	wires          // the wires
	engines        // engines, never each other
	face           // HTTP face of query
	wiring         // programs
	anyFloor
)

// plan is the floor plan, one row for each package. Keys leave out the leading
// pkg/. Packages whose name ends in "test" serve tests: they may import
// anything, and only tests and their likes may import them.
func plan() map[string]rule {
	const (
		belowWires = "bucket block series chunkcodec aggrchunk merge dedup downsample planner blockio fetcher pagecache blockindex blockwriter blockscan"
		allWires   = "storeapi proxyapi promclient"
	)
	return map[string]rule{
		"internal/arch":       {beside, ""},
		"internal/golden":     {beside, ""},
		"internal/cmdtest":    {beside, "daemon"},
		"internal/logtest":    {beside, ""},
		"internal/cputest":    {beside, ""},
		"internal/metrictest": {beside, ""},
		"daemon":              {beside, "panics"},
		"garbage":             {beside, ""},
		"panics":              {beside, ""},

		"bucket":                   {storage, "bucket/s3 bucket/internal/contract"},
		"bucket/internal/contract": {storage, ""},
		"bucket/s3":                {storage, "bucket/internal/contract"},

		"sharedcache": {storage, ""},

		"block":      {formats, ""},
		"chunkcodec": {formats, ""},
		"aggrchunk":  {formats, "chunkcodec"},
		"series":     {formats, "chunkcodec aggrchunk"},

		"merge":      {pure, "series"},
		"dedup":      {pure, "series chunkcodec aggrchunk"},
		"downsample": {pure, "block series chunkcodec aggrchunk"},
		"planner":    {pure, "block"},

		"blockio":     {blocks, "bucket block"},
		"fetcher":     {blocks, "bucket block"},
		"pagecache":   {blocks, "bucket"},
		"blockindex":  {blocks, "bucket block series pagecache"},
		"blockwriter": {blocks, "bucket block series"},
		"blockscan":   {blocks, "block series chunkcodec aggrchunk"},
		"blockview":   {blocks, "block"},

		"storeapi":         {wires, "panics block series chunkcodec aggrchunk storeapi/storepb"},
		"storeapi/storepb": {wires, ""},
		"proxyapi":         {wires, "proxyapi/proxypb storeapi/storepb"},
		"proxyapi/proxypb": {wires, "storeapi/storepb"},
		"promclient":       {wires, ""},

		"sidecar":        {engines, "bucket block blockio blockindex pagecache series aggrchunk merge storeapi proxyapi promclient"},
		"store":          {engines, "panics bucket block blockview series blockindex pagecache aggrchunk merge storeapi"},
		"query":          {engines, "panics block series chunkcodec aggrchunk merge dedup storeapi proxyapi query/columnar"},
		"query/columnar": {engines, "series chunkcodec aggrchunk dedup"},
		"compact":        {engines, "panics bucket block blockview blockio blockindex blockwriter pagecache planner series aggrchunk merge dedup downsample"},
		"bucketops":      {engines, belowWires},

		"query/promapi": {face, "query"},

		"cmd/sidecar": {wiring, "daemon bucket block sidecar storeapi proxyapi promclient"},
		"cmd/store":   {wiring, "daemon garbage bucket block fetcher pagecache sharedcache store storeapi"},
		"cmd/query":   {wiring, "daemon dedup query query/columnar query/promapi storeapi proxyapi"},
		"cmd/compact": {wiring, "daemon garbage bucket block dedup fetcher planner compact"},
		"cmd/bucket":  {wiring, "daemon bucketops " + belowWires + " " + allWires},

		"bucket/buckettest":     {anyFloor, ""},
		"block/blocktest":       {anyFloor, ""},
		"storeapi/storeapitest": {anyFloor, ""},
		"query/querytest":       {anyFloor, ""},
	}
}

// sideways lists the arrows between packages of one floor.
func sideways() map[string]string {
	return map[string]string{
		"bucket → bucket/s3":                   "bucket.Open chooses the provider",
		"bucket → bucket/internal/contract":    "the contract's types, which the provider implements too",
		"bucket/s3 → bucket/internal/contract": "as above",
		"aggrchunk → chunkcodec":               "an aggregate chunk is made of chunks",
		"series → chunkcodec":                  "the adapters decode",
		"series → aggrchunk":                   "the adapters open aggregate chunks",
		"storeapi → storeapi/storepb":          "its generated messages",
		"proxyapi → proxyapi/proxypb":          "its generated messages",
		"proxyapi → storeapi/storepb":          "messages that the services share",
		"proxyapi/proxypb → storeapi/storepb":  "as above",
		"query → query/columnar":               "the evaluator that is asked first",
		"blockindex → pagecache":               "an index is read through pages",
		"internal/cmdtest → daemon":            "what a command is",
		"daemon → panics":                      "what is done again and again goes on",
	}
}

// planned names packages of the plan that ARCHITECTURE.md may name before they exist.
func planned() []string {
	return nil
}

// plannedDocuments names documents that code may lean on before they are written.
func plannedDocuments() []string {
	return nil
}
