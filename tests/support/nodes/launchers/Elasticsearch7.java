import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.Plugin;

/** Starts Elasticsearch 7.17 with the modules of the class path. Arguments: HOME CONFIG setting=value... */
public final class Elasticsearch7 {
    private static final List<String> MODULES = List.of(
            "org.elasticsearch.transport.Netty4Plugin",
            "org.elasticsearch.index.mapper.MapperExtrasPlugin",
            "org.elasticsearch.index.reindex.ReindexPlugin",
            "org.elasticsearch.reindex.ReindexPlugin",
            "org.elasticsearch.join.ParentJoinPlugin",
            "org.elasticsearch.percolator.PercolatorPlugin",
            "org.elasticsearch.index.rankeval.RankEvalPlugin",
            "org.elasticsearch.script.mustache.MustachePlugin",
            "org.elasticsearch.search.aggregations.matrix.MatrixAggregationPlugin");

    /** The constructor that takes modules is open to heirs only. */
    private static final class WithModules extends Node {
        WithModules(Environment environment, Collection<Class<? extends Plugin>> modules) {
            super(environment, modules, true);
        }
    }

    public static void main(String[] arguments) throws Exception {
        Path config = Path.of(arguments[1]);
        Files.createDirectories(config);
        Settings.Builder settings = Settings.builder().put("path.home", arguments[0]);
        for (int i = 2; i < arguments.length; i++) {
            String[] setting = arguments[i].split("=", 2);
            settings.put(setting[0], setting[1]);
        }
        Environment environment =
                InternalSettingsPreparer.prepareEnvironment(settings.build(), Map.of(), config, () -> "test");
        LogConfigurator.setNodeName("test");
        LogConfigurator.configure(environment);
        Node node = new WithModules(environment, modules());
        Runtime.getRuntime().addShutdownHook(new Thread(() -> close(node)));
        node.start();
        new CountDownLatch(1).await();
    }

    private static List<Class<? extends Plugin>> modules() {
        List<Class<? extends Plugin>> found = new ArrayList<>();
        for (String name : MODULES) {
            try {
                found.add(Class.forName(name).asSubclass(Plugin.class));
            } catch (ClassNotFoundException absent) {
                // ReindexPlugin has moved between versions: one of its two names is absent.
            }
        }
        return found;
    }

    private static void close(Node node) {
        try {
            node.close();
            node.awaitClose(10, TimeUnit.SECONDS);
        } catch (Exception error) {
            error.printStackTrace();
        }
    }
}
