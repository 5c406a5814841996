import com.hivemq.embedded.EmbeddedExtension;
import com.hivemq.embedded.EmbeddedHiveMQ;
import com.hivemq.extension.sdk.api.ExtensionMain;
import com.hivemq.extension.sdk.api.auth.SimpleAuthenticator;
import com.hivemq.extension.sdk.api.auth.parameter.SimpleAuthInput;
import com.hivemq.extension.sdk.api.auth.parameter.SimpleAuthOutput;
import com.hivemq.extension.sdk.api.auth.parameter.TopicPermission;
import com.hivemq.extension.sdk.api.interceptor.publish.PublishInboundInterceptor;
import com.hivemq.extension.sdk.api.interceptor.publish.parameter.PublishInboundInput;
import com.hivemq.extension.sdk.api.interceptor.publish.parameter.PublishInboundOutput;
import com.hivemq.extension.sdk.api.packets.auth.DefaultAuthorizationBehaviour;
import com.hivemq.extension.sdk.api.packets.connect.ConnackReasonCode;
import com.hivemq.extension.sdk.api.packets.publish.AckReasonCode;
import com.hivemq.extension.sdk.api.parameter.ExtensionStartInput;
import com.hivemq.extension.sdk.api.parameter.ExtensionStartOutput;
import com.hivemq.extension.sdk.api.parameter.ExtensionStopInput;
import com.hivemq.extension.sdk.api.parameter.ExtensionStopOutput;
import com.hivemq.extension.sdk.api.services.Services;
import com.hivemq.extension.sdk.api.services.builder.Builders;
import java.nio.file.Path;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;
import javax.naming.ldap.LdapName;
import javax.naming.ldap.Rdn;

/** HiveMQ CE with the rules of etc/mosquitto/acl: the CN of the certificate is the client id and says what it may do. */
public class Fixture {
  static final class Rules implements ExtensionMain, SimpleAuthenticator, PublishInboundInterceptor {
    @Override
    public void extensionStart(ExtensionStartInput input, ExtensionStartOutput output) {
      Services.securityRegistry().setAuthenticatorProvider(provided -> this);
      Services.initializerRegistry().setClientInitializer((client, context) -> context.addPublishInboundInterceptor(this));
    }

    @Override
    public void extensionStop(ExtensionStopInput input, ExtensionStopOutput output) {}

    @Override
    public void onConnect(SimpleAuthInput input, SimpleAuthOutput output) {
      String name = commonName(input);
      if (!name.equals(input.getClientInformation().getClientId())) {
        output.failAuthentication(ConnackReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "not the name of the certificate");
        return;
      }
      output.getDefaultPermissions().addAll(permissions(name));
      output.getDefaultPermissions().setDefaultBehaviour(DefaultAuthorizationBehaviour.DENY);
      output.authenticateSuccessfully();
    }

    /** Refused with PUBACK 0x87, as by Mosquitto; an authorizer or a missing permission would end the connection too. */
    @Override
    public void onInboundPublish(PublishInboundInput input, PublishInboundOutput output) {
      String name = input.getClientInformation().getClientId();
      String level = "[^/]+";
      String allowed =
          name.equals("svc-bridge")
              ? "dmp/v1/" + level + "/(" + level + "/cmd/" + level + "|rae/ack)"
              : "dmp/v1/" + Pattern.quote(name) + "/" + level + "/(info|rsp/" + level + ")";
      if (!Pattern.matches(allowed, input.getPublishPacket().getTopic())) {
        output.preventPublishDelivery(AckReasonCode.NOT_AUTHORIZED);
      }
    }

    private static List<TopicPermission> permissions(String name) {
      String own = "dmp/v1/" + name;
      List<String> filters =
          name.equals("svc-bridge")
              ? List.of("dmp/v1/+/+/info", "dmp/v1/+/+/rsp/+")
              : List.of(own + "/+/cmd/+", own + "/rae/ack", own + "/rae/info");
      List<TopicPermission> all = new ArrayList<>();
      all.add(permission("dmp/v1/#", TopicPermission.MqttActivity.PUBLISH));
      for (String filter : filters) {
        all.add(permission(filter, TopicPermission.MqttActivity.SUBSCRIBE));
      }
      return all;
    }

    private static TopicPermission permission(String filter, TopicPermission.MqttActivity activity) {
      return Builders.topicPermission().topicFilter(filter).activity(activity).build();
    }

    private static String commonName(SimpleAuthInput input) {
      X509Certificate certificate =
          input.getConnectionInformation().getClientTlsInformation().orElseThrow().getClientCertificate().orElseThrow();
      try {
        for (Rdn rdn : new LdapName(certificate.getSubjectX500Principal().getName()).getRdns()) {
          if (rdn.getType().equalsIgnoreCase("CN")) {
            return rdn.getValue().toString();
          }
        }
      } catch (javax.naming.InvalidNameException error) {
        throw new IllegalArgumentException(error);
      }
      return "";
    }
  }

  public static void main(String[] arguments) {
    Path home = Path.of(arguments[0]);
    EmbeddedExtension rules =
        EmbeddedExtension.builder()
            .withId("rules").withName("rules").withVersion("1").withAuthor("dmpd")
            .withPriority(0).withStartPriority(1000)
            .withExtensionMain(new Rules())
            .build();
    EmbeddedHiveMQ broker =
        EmbeddedHiveMQ.builder()
            .withConfigurationFolder(home.resolve("conf"))
            .withDataFolder(home.resolve("data"))
            .withExtensionsFolder(home.resolve("extensions"))
            .withEmbeddedExtension(rules)
            .build();
    Runtime.getRuntime().addShutdownHook(new Thread(() -> broker.stop().join()));
    broker.start().join();
  }
}
