
import com.google.gson.Gson;
import com.jayway.jsonpath.Configuration;
import com.jayway.jsonpath.JsonPath;
import com.jayway.jsonpath.spi.json.JacksonJsonProvider;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.opensearch.common.xcontent.json.JsonXContent;
import org.opensearch.core.action.ActionListener;
import org.opensearch.core.xcontent.MediaTypeRegistry;
import org.opensearch.core.xcontent.NamedXContentRegistry;
import org.opensearch.core.xcontent.ToXContent;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.ml.common.FunctionName;
import org.opensearch.ml.common.connector.Connector;
import org.opensearch.ml.common.connector.ConnectorAction;
import org.opensearch.ml.common.connector.MLPreProcessFunction;
import org.opensearch.ml.common.dataset.TextDocsInputDataSet;
import org.opensearch.ml.common.input.MLInput;
import org.opensearch.ml.common.output.model.ModelTensor;
import org.opensearch.ml.common.transport.connector.MLCreateConnectorInput;
import org.opensearch.neuralsearch.util.TokenWeightUtil;

/**
 * Encodes texts by a connector, with the classes of ml-commons and neural-search that their plugin brings: parses and stores the
 * request that creates it, checks its URL, builds body and headers, sends them, and reads the tokens as a neural_sparse query does.
 * Arguments: FILE of the connector, then the trusted URL patterns. Texts come as a JSON list on standard input; a JSON list of
 * weights by token goes to standard output.
 */
public final class RunConnector {
    private static final String ACTION = "predict";
    private static final int TIMEOUT_MS = 30_000;

    public static void main(String[] arguments) throws Exception {
        Gson gson = new Gson();
        Connector connector = create(Files.readString(Path.of(arguments[0])));
        connector.validateConnectorURL(List.of(arguments).subList(1, arguments.length));
        connector.decrypt(ACTION, (secrets, tenant, listener) -> listener.onResponse(secrets), null, ActionListener.wrap(done -> {}, error -> {
            throw new IllegalStateException(error);
        }));
        String[] texts = gson.fromJson(new String(System.in.readAllBytes(), StandardCharsets.UTF_8), String[].class);
        String answer = send(connector, buildBody(connector, List.of(texts)));
        // ml-commons parses with json-smart, whose other half isn't in the plugin.
        Configuration jackson = Configuration.builder().jsonProvider(new JacksonJsonProvider()).build();
        Object filtered = JsonPath.using(jackson).parse(answer).read(connector.getParameters().get("response_filter"));
        List<ModelTensor> tensors = new ArrayList<>();
        connector.parseResponse(filtered, tensors, false);
        List<Map<String, ?>> results = new ArrayList<>();
        tensors.forEach(tensor -> results.add(tensor.getDataAsMap()));
        System.out.write(gson.toJson(TokenWeightUtil.fetchListOfTokenWeightMap(results)).getBytes(StandardCharsets.UTF_8));
        System.out.flush();
    }

    private static Connector create(String request) throws IOException {
        XContentParser parser = JsonXContent.jsonXContent.createParser(NamedXContentRegistry.EMPTY, null, request);
        parser.nextToken();
        MLCreateConnectorInput input = MLCreateConnectorInput.parse(parser);
        XContentBuilder stored = XContentBuilder.builder(MediaTypeRegistry.JSON.xContent());
        input.toXContent(stored, ToXContent.EMPTY_PARAMS);
        return Connector.createConnector(stored, input.getProtocol());
    }

    private static String buildBody(Connector connector, List<String> texts) {
        ConnectorAction action = connector.findAction(ACTION).orElseThrow();
        MLInput input = MLInput.builder()
                .algorithm(FunctionName.TEXT_EMBEDDING)
                .inputDataset(TextDocsInputDataSet.builder().docs(texts).build())
                .build();
        Map<String, String> parameters =
                MLPreProcessFunction.get(action.getPreProcessFunction()).apply(input).getParameters();
        return connector.createPayload(ACTION, parameters);
    }

    private static String send(Connector connector, String body) throws IOException {
        URI uri = URI.create(connector.getActionEndpoint(ACTION, connector.getParameters()));
        HttpURLConnection connection = (HttpURLConnection) uri.toURL().openConnection();
        connection.setConnectTimeout(TIMEOUT_MS);
        connection.setReadTimeout(TIMEOUT_MS);
        connection.setRequestMethod(connector.getActionHttpMethod(ACTION));
        connection.setRequestProperty("Content-Type", "application/json");
        connector.getDecryptedHeaders().forEach(connection::setRequestProperty);
        connection.setDoOutput(true);
        try (OutputStream out = connection.getOutputStream()) {
            out.write(body.getBytes(StandardCharsets.UTF_8));
        }
        int status = connection.getResponseCode();
        try (InputStream in = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
            String answer = new String(in.readAllBytes(), StandardCharsets.UTF_8);
            if (status >= 400) {
                throw new IOException("Error from remote service (" + status + "): " + answer);
            }
            return answer;
        }
    }
}
