// java Search.java INDEX "a cup of coffee"      plain text: documents with impacts (stair-es ingest --impact-field)
// java Search.java INDEX kitten=0.9 cat=0.4     weighted words: every index
// A JDK of 11 or newer runs it as it is; the JSON is put together by hand, so that no library is needed.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Arrays;
import java.util.stream.Collectors;

public class Search {
    public static void main(String[] args) throws Exception {
        if (args.length < 2) {
            System.err.println("usage: java Search.java INDEX TEXT | INDEX WORD=WEIGHT...");
            System.exit(2);
        }
        String[] asked = Arrays.copyOfRange(args, 1, args.length);
        boolean weighted = asked[0].contains("=");
        String id = weighted ? "stair-es-tokens" : "stair-es-match";
        String params = weighted
                ? "\"tokens\": [" + Arrays.stream(asked).map(Search::token).collect(Collectors.joining(", ")) + "]"
                : "\"text\": " + quoted(String.join(" ", asked));
        String fields = "filter_path=hits.hits._score,hits.hits._source.uri,error";
        HttpRequest request = HttpRequest.newBuilder()
                .uri(URI.create(System.getenv("STAIR_ES_URL") + "/" + args[0] + "/_search/template?" + fields))
                .header("content-type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString("{\"id\": \"" + id + "\", \"params\": {\"size\": 3, " + params + "}}"))
                .build();
        HttpResponse<String> response = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        if (response.statusCode() != 200) {
            System.err.println("HTTP " + response.statusCode() + ": " + response.body());
            System.exit(1);
        }
        System.out.println(response.body());
    }

    /** One weighted word, as the index writes it: see docs/templates.md. */
    private static String token(String pair) {
        int equals = pair.lastIndexOf('=');
        String word = pair.substring(0, equals).replace("%", "%25").replace(".", "%2E");
        return "{\"token\": " + quoted(word.isEmpty() ? "%" : word) + ", \"weight\": " + quoted(pair.substring(equals + 1)) + "}";
    }

    private static String quoted(String text) {
        StringBuilder json = new StringBuilder("\"");
        text.codePoints().forEach(c -> {
            if (c == '"' || c == '\\') {
                json.append('\\').appendCodePoint(c);
            } else if (c < ' ') {
                json.append(String.format("\\u%04x", c));
            } else {
                json.appendCodePoint(c);
            }
        });
        return json.append('"').toString();
    }
}
