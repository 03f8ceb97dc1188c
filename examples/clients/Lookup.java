import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.text.Normalizer;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.zip.GZIPInputStream;

/**
 * The tokens of a text, looked up in a file of `stair-es export --table`. For a JDK of 11 or newer, without a library.
 *
 *     java Lookup.java stair-mini-3.tsv.gz < texts.txt      a line of tokens and weights for each line
 */
public class Lookup {
    /** A word, or a character that ends a phrase: not a space, apostrophe or hyphen. */
    private static final Pattern WORD = Pattern.compile("\\p{L}+|[^\\p{L} \\t\\r\\n'\\u2019-]");
    private final Map<String, String> about = new HashMap<>();
    private final Map<String, String[]> rows = new HashMap<>();

    public Lookup(String path) throws IOException {
        try (InputStream file = new FileInputStream(path);
                InputStream content = path.endsWith(".gz") ? new GZIPInputStream(file) : file;
                BufferedReader lines = new BufferedReader(new InputStreamReader(content, StandardCharsets.UTF_8))) {
            String line;
            while ((line = lines.readLine()) != null && !line.isEmpty()) {
                about.put(line.split("\t")[0], line.substring(line.indexOf('\t') + 1));
            }
            if (!"1".equals(about.get("stair-es-table"))) {
                throw new IOException(path + " is no table of version 1: write it with stair-es export --table");
            }
            while ((line = lines.readLine()) != null) {
                rows.put(line.substring(0, line.indexOf('\t')), line.substring(line.indexOf('\t') + 1).split("\t"));
            }
        }
    }

    public String model() {
        return about.get("model");
    }

    /** Returns the tokens of a text with their weights, heaviest first; none if no word of it is known. */
    public Map<String, Double> encode(String text) {
        String plain = Normalizer.normalize(text, Normalizer.Form.NFKD).replaceAll("\\p{M}", "").toLowerCase(Locale.ROOT);
        List<String> words = WORD.matcher(plain).results().map(MatchResult::group).collect(Collectors.toList());
        Map<String, Integer> largest = new HashMap<>();
        int maxWords = Integer.parseInt(about.get("max_words"));
        for (int begin = 0, end; begin < words.size(); begin = Math.max(end, begin + 1)) {
            String[] row = null; // row of the longest known phrase
            for (end = Math.min(words.size(), begin + maxWords); end > begin; end--) {
                row = rows.get(String.join(" ", words.subList(begin, end)));
                if (row != null) {
                    break;
                }
            }
            for (int i = 0; row != null && i + 1 < row.length; i += 2) {
                largest.merge(row[i], Integer.valueOf(row[i + 1]), Math::max);
            }
        }
        List<Map.Entry<String, Integer>> heaviest = largest.entrySet().stream()
                .sorted(Map.Entry.<String, Integer>comparingByValue().reversed().thenComparing(Map.Entry.comparingByKey()))
                .limit(Integer.parseInt(about.get("max_tokens")))
                .collect(Collectors.toList());
        double length = Math.sqrt(heaviest.stream().mapToLong(each -> (long) each.getValue() * each.getValue()).sum());
        Map<String, Double> tokens = new LinkedHashMap<>();
        heaviest.forEach(each -> tokens.put(each.getKey(), Math.round(each.getValue() / length * 1e5) / 1e5));
        return tokens;
    }

    public static void main(String[] args) throws IOException {
        Lookup table = new Lookup(args[0]);
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            System.out.println(table.encode(line).entrySet().stream()
                    .map(each -> String.format(Locale.ROOT, "%s\t%.5f", each.getKey(), each.getValue()))
                    .collect(Collectors.joining("\t")));
        }
    }
}
