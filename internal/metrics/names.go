package metrics

// Types of metrics.
const (
	Counter   = "counter"
	Gauge     = "gauge"
	Histogram = "histogram"
)

// Metric is a name that the server has at /metrics.
type Metric struct {
	Name, Type string
	Labels     []string
	Help       string
	Buckets    []float64
}

var (
	short = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	long  = []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	// ages of instances, from minutes to a week and more.
	ages = []float64{60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 2 * 24 * 3600, 4 * 24 * 3600, 7 * 24 * 3600, 14 * 24 * 3600, 30 * 24 * 3600}
)

// Names are all metrics, in the order of the reference.
var Names = []Metric{
	{Name: "dayfly_up_to_date", Type: Gauge, Help: "1 when the records were read for this scrape; 0: what is said of records is missing, because the store did not answer."},
	{Name: "dayfly_active", Type: Gauge, Help: "1 while this server owns the work, 0 while it stands by. The sum over all replicas is 1."},
	{Name: "dayfly_uptime_seconds", Type: Gauge, Help: "Since the server was started."},

	{Name: "dayfly_instances", Type: Gauge, Labels: []string{"environment", "state"}, Help: "Instances that are not gone, by state: launching, serving, failing, leaving, kept."},
	{Name: "dayfly_instance_age_seconds", Type: Histogram + " (of now)", Labels: []string{"environment"}, Buckets: ages, Help: "The ages of the instances that are in service now."},
	{Name: "dayfly_instances_launched_total", Type: Counter, Help: "Instances that were launched."},
	{Name: "dayfly_instances_in_service_total", Type: Counter, Help: "Instances that came into service."},
	{Name: "dayfly_instances_failed_to_start_total", Type: Counter, Help: "Instances that were launched and ended before they came into service. Divided by the launched ones it is the failure rate."},
	{Name: "dayfly_instance_failure_ratio", Type: Gauge, Help: "Of the instances that were launched in the last 24 hours, the share that never came into service."},

	{Name: "dayfly_environments", Type: Gauge, Labels: []string{"phase"}, Help: "Environments by phase, those that are gone not counted."},
	{Name: "dayfly_environment_uptime_seconds", Type: Gauge, Labels: []string{"environment"}, Help: "Since the generation that serves was ready."},
	{Name: "dayfly_environment_healthy_ratio", Type: Gauge, Labels: []string{"environment"}, Help: "Healthy instances of the generation that serves, by its size."},
	{Name: "dayfly_lease_remaining_seconds", Type: Gauge, Labels: []string{"environment"}, Help: "Until the environment's lease ends."},
	{Name: "dayfly_image_current_ratio", Type: Gauge, Labels: []string{"environment"}, Help: "Of the instances in service, the share that was launched from the image that the environment shall run: that of the channel that it follows."},
	{Name: "dayfly_image_late", Type: Gauge, Labels: []string{"environment"}, Help: "1 when the image that the environment shall run is not on all instances in time, or will not be; dayfly image currency says why."},
	{Name: "dayfly_image_oldest_age_seconds", Type: Gauge, Labels: []string{"environment"}, Help: "Since the oldest image that an instance in service was launched from was made."},
	{Name: "dayfly_images", Type: Gauge, Labels: []string{"state"}, Help: "Images by state: candidate, verified, retired, quarantined."},

	{Name: "dayfly_blocked", Type: Gauge, Labels: []string{"kind", "rule"}, Help: "Objects that wait, by the rule that blocks them. dayfly why says what each waits for."},
	{Name: "dayfly_blocked_oldest_seconds", Type: Gauge, Labels: []string{"kind", "rule"}, Help: "For how long the one that waits longest has waited."},
	{Name: "dayfly_orphans", Type: Gauge, Help: "What belonged to nothing when the cloud was swept the last time, and was not removed yet."},
	{Name: "dayfly_orphans_removed_total", Type: Counter, Help: "What belonged to nothing and was removed."},
	{Name: "dayfly_sweep_age_seconds", Type: Gauge, Help: "Since the cloud was swept by this server; absent before the first time."},

	{Name: "dayfly_events_total", Type: Counter, Labels: []string{"reason", "severity"}, Help: "What happened, by reason; see dayfly events."},
	{Name: "dayfly_loop_queue", Type: Gauge, Labels: []string{"loop"}, Help: "Records that wait for a worker."},
	{Name: "dayfly_loop_runs_total", Type: Counter, Labels: []string{"loop", "outcome"}, Help: "Runs of loops: ok or error."},
	{Name: "dayfly_loop_run_seconds", Type: Histogram, Labels: []string{"loop"}, Buckets: long, Help: "What a run takes."},
	{Name: "dayfly_cloud_requests_total", Type: Counter, Labels: []string{"operation", "outcome"}, Help: "Requests to AWS: ok, error or throttled. Retries count."},
	{Name: "dayfly_cloud_request_seconds", Type: Histogram, Labels: []string{"operation"}, Buckets: long, Help: "What a request takes, without its wait for a turn."},
	{Name: "dayfly_limiter_waited_seconds_total", Type: Counter + " (of the limiter)", Labels: []string{"operation"}, Help: "What requests waited for their turn, all together."},
	{Name: "dayfly_limiter_given_up_total", Type: Counter + " (of the limiter)", Labels: []string{"operation"}, Help: "Requests that failed because their turn would have come too late."},
	{Name: "dayfly_store_writes_total", Type: Counter, Labels: []string{"outcome"}, Help: "Batches written to the database: ok, or the kind of the failure."},
	{Name: "dayfly_store_write_seconds", Type: Histogram, Buckets: short, Help: "What a batch takes, until it is durable."},
	{Name: "dayfly_records", Type: Gauge, Labels: []string{"kind"}, Help: "Records in the database: of what lives, and of what is over and kept for a time (--keep)."},
	{Name: "dayfly_records_forgotten_total", Type: Counter, Labels: []string{"kind"}, Help: "Records that were removed by this server because what they are of is over for longer than --keep, and intents with them."},
	{Name: "dayfly_http_requests_total", Type: Counter, Labels: []string{"method", "route", "status"}, Help: "Requests to the API."},
	{Name: "dayfly_http_request_seconds", Type: Histogram, Labels: []string{"route"}, Buckets: short, Help: "What a request takes; watches are as long as they are followed."},
}
