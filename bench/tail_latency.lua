-- For wrk: one line that bench/tail-latency reads. Microseconds; the last number counts what failed.
function done(summary, latency, requests)
	local e = summary.errors
	print(string.format("result %d %d %d %d %d %d", summary.requests, latency:percentile(50), latency:percentile(99),
		latency:percentile(99.9), latency.max, e.connect + e.read + e.write + e.status + e.timeout))
end
