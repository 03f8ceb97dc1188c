import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * Searches images by text. For a JDK of 11 or newer, without a library: JSON is built and parsed by hand.
 *
 *     javac -d classes Lookup.java Search.java && java -cp classes Search INDEX "a cup of coffee"
 *
 * STAIR_ES_URL is the cluster. The query comes from the service at STAIR_ES_ENCODER_URL (stair-es encoder --index INDEX; its access
 * token in STAIR_ES_ENCODER_TOKEN), or is built of the tokens in the file STAIR_ES_TABLE (stair-es export --table).
 */
public class Search {
    private static final String STRING = "\"((?:[^\"\\\\]|\\\\.)*)\"";
    private static final Pattern MODEL = Pattern.compile("\"model\"\\s*:\\s*" + STRING);
    private static final HttpClient CLIENT = HttpClient.newHttpClient();

    public static void main(String[] args) throws IOException, InterruptedException {
        String index = System.getenv("STAIR_ES_URL") + "/" + args[0];
        String body;
        if (System.getenv("STAIR_ES_ENCODER_URL") == null) {
            body = lookUp(index, args[1]);
        } else { // a search without weak matches; with "describe" it also tells what the model doesn't know
            String asked = "{\"text\": \"" + escape(args[1]) + "\", \"k\": 3, \"cut\": true}";
            body = request(System.getenv("STAIR_ES_ENCODER_URL") + "/v1/query", asked, System.getenv("STAIR_ES_ENCODER_TOKEN"));
        }
        String hits = request(index + "/_search?filter_path=hits.hits._score,hits.hits._source.uri", body, null);
        System.out.println(hits.equals("{}") ? "no good match" : hits);
    }

    private static String lookUp(String index, String text) throws IOException, InterruptedException {
        Lookup table = new Lookup(System.getenv("STAIR_ES_TABLE")); // read it once per program
        // Check the model of the index once, when the program starts.
        String written = find(MODEL, request(index + "/_mapping?filter_path=*.mappings._meta.stair_es.model", null, null));
        if (written != null && !written.equals(table.model())) {
            throw new IOException(index + " was written by " + written + ", and these tokens are of " + table.model());
        }
        Map<String, String> weights = new LinkedHashMap<>(); // keys are tokens as in JSON
        table.encode(text).forEach((token, weight) -> weights.put(escape(token), weight.toString()));
        return buildBody(weights, 3);
    }

    /** Returns the body of the search: its score is the sum of the products of weights. */
    private static String buildBody(Map<String, String> weights, int size) {
        String clauses = weights.entrySet().stream()
                .map(each -> "{\"rank_feature\": {\"field\": \"tokens." + nameField(each.getKey()) + "\", \"boost\": " + each.getValue()
                        + ", \"linear\": {}}}")
                .collect(Collectors.joining(", "));
        String query = weights.isEmpty() ? "{\"match_none\": {}}" : "{\"bool\": {\"should\": [" + clauses + "]}}";
        return "{\"size\": " + size + ", \"_source\": [\"uri\"], \"query\": " + query + "}";
    }

    /** Returns a token as it is named in the index. */
    private static String nameField(String token) {
        return token.isEmpty() ? "%" : token.replace("%", "%25").replace(".", "%2E");
    }

    private static String request(String url, String body, String secret) throws IOException, InterruptedException {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(10));
        if (body != null) {
            request.header("content-type", "application/json").POST(HttpRequest.BodyPublishers.ofString(body));
        }
        if (secret != null) {
            request.header("authorization", "Bearer " + secret);
        }
        HttpResponse<String> response = CLIENT.send(request.build(), HttpResponse.BodyHandlers.ofString());
        if (response.statusCode() != 200) {
            throw new IOException("HTTP " + response.statusCode() + ": " + response.body());
        }
        return response.body();
    }

    private static String find(Pattern pattern, String json) {
        Matcher found = pattern.matcher(json);
        return found.find() ? found.group(1) : null;
    }

    /** Returns a text escaped for a JSON string. */
    private static String escape(String text) {
        StringBuilder json = new StringBuilder();
        for (char each : text.toCharArray()) {
            json.append(each < ' ' || each == '"' || each == '\\' ? String.format("\\u%04x", (int) each) : String.valueOf(each));
        }
        return json.toString();
    }
}
